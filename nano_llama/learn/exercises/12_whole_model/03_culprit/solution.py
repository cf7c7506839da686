def culprit(errors, tolerance):
    for name in reversed(list(errors)):
        if not errors[name] <= tolerance:
            return name
    return ""
