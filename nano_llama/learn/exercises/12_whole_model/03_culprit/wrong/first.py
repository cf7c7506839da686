# stage: smallest | says: The gradient comes from the loss: the first tensor that is wrong on its way is the last one in the list.
def culprit(errors, tolerance):
    for name in list(errors):
        if not errors[name] <= tolerance:
            return name
    return ""
