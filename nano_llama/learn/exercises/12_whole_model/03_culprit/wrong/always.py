# stage: smallest | says: Where all errors are within the tolerance nobody is to blame.
def culprit(errors, tolerance):
    for name in reversed(list(errors)):
        if not errors[name] <= tolerance:
            return name
    return list(errors)[-1]
