# stage: smallest | says: That is how many bytes are still to come; asked is how many are there and must wait.
def hold_back(data):
    for back in range(1, min(len(data), 3) + 1):
        byte = data[-back]
        if byte & 0b11000000 != 0b10000000:  # the first byte of a character
            return length(byte) - back
    return 0


def length(first):
    return 1 if first < 0b11000000 else 2 if first < 0b11100000 else 3 if first < 0b11110000 else 4
