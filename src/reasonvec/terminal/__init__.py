"""What the commands show people: tables and paragraphs for rich, from the values that the functions return, in a module
for each kind of command. Fits 80 columns. Text from files is never read as markup.
"""
