"""Groups what several records hold of one thing: votes, rated answers, messages of a tree.

The first pass leaves such records as pending rows. `groups` finds which rows belong together,
`outcomes` says what a group comes to, and `assemble` makes pairs of it.
"""
