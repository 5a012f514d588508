"""The paper's tables beside ours: assembled from rows, each measured and kept on its own.

paper     the paper's own figures
layout    what a table consists of: columns, rows, claims
specs     the tables themselves
rows      what is kept of a measured row, and when it need not be measured again
measure   a row's figures on one benchmark
assemble  rows → one table, as JSON, CSV, Markdown and text
page      the same with pictures, as one HTML file
"""
