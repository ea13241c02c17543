"""Networks that are harder to fool: adversarial training, defences in front of a network, and what they are worth."""
