"""The book's Sphinx extensions, one small file for each kind of thing that a chapter holds. Tests: tests/book.

formulas   TeX as MathML that is kept in formulas.json        sources   code of the package, quoted
derive     an equation beside the lines that compute it      cells     code that runs, numbers that it printed
traces     steps to click through                            exercises what `nano-llama learn` asks
errata     mistakes of the field, and how to repeat them     indexes   all equations, all mistakes
shares     how much of the book is executed                  site      links, anchors, nothing from outside
"""
