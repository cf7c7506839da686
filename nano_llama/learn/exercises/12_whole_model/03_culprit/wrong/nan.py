# stage: edge | says: NaN is not larger than anything, and wrong all the same.
def culprit(errors, tolerance):
    for name in reversed(list(errors)):
        if errors[name] > tolerance:
            return name
    return ""
