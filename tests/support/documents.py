"""Texts of the model that the export's tests train."""

DOCUMENTS = (
    "I would like to order two blue cups.",
    "Where is my order? It is late.",
    "The cup is broken, I want my money back.",
    "Please send it to my new address.",
    "Can I pay the courier when he comes?",
    "Thank you, that is all for today.",
)
CALIBRATION = (
    "I want two cups today.",
    "Where is my money?",
    "Please order my cups, thank you.",
)
