# stage: smallest | says: Only the last byte is looked at: an unfinished character may already have two or three bytes.
def hold_back(data):
    for back in range(1, min(len(data), 1) + 1):
        byte = data[-back]
        if byte & 0b11000000 != 0b10000000:  # the first byte of a character
            return back if back < length(byte) else 0
    return 0


def length(first):
    return 1 if first < 0b11000000 else 2 if first < 0b11100000 else 3 if first < 0b11110000 else 4
