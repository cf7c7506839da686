def hold_back(data):
    for back, announces_more in ((1, 0b11000000), (2, 0b11100000), (3, 0b11110000)):
        if len(data) >= back and data[-back] >= announces_more:
            return back
    return 0
