"""Tokenizes and encodes prompts with the text encoder that the library carries. Its weights are random."""

import luna

with luna.open() as session, session.clip() as clip:
    for token in clip.tokenize("a (red:1.3) fox")[:5]:
        print(token)
    positive, negative = clip.encode("a (red:1.3) fox", "blurry")
    print(positive.tokens, positive.pooled)
