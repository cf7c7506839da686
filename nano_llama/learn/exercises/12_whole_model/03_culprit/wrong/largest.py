# stage: smallest | says: The largest error need not be where the mistake is; it may grow on its way down.
def culprit(errors, tolerance):
    worst = max(errors, key=errors.get)
    return worst if errors[worst] > tolerance else ""
