"""Rules that drop doubtful questions (paper, section 4, stage 4): pure functions of a finished row, each with a name.

| family | rejects |
|---|---|
| text | answers that are not noun phrases or too long; questions that repeat another one or give the answer away |
| counts | numbers of objects that contradict the ground, the answer's number or the number of slots |
| boxes | boxes outside the picture, too small, too large, or twice in one answer |
| masks | masks that their model doubts, that leave their box, fall into pieces or overlap |
| opinions | answers that another model does not find, a round trip does not return or an exhaustivity check doubts |

The paper names no rule and no threshold; these are ours. It reports that unfiltered data hurts most where one target is
asked for (table 8), so the rules above all check counts and identity. A rule drops a question, never an image, and
removes nothing: it adds a rejection to the row.
"""
