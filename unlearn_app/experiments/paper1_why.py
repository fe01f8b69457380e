"""Our reading of why an arm of paper 1 falls short where it does."""

ASCENT = (
    "Ascent names no picture to paint instead: what it does to the concept's family is left to"
    " chance, and its limit ends it where the loss is high, not where the last picture is gone."
)
WHY = dict.fromkeys(("sum", "sum + diversified", "one-sided"), ASCENT)
WHY |= dict.fromkeys(("restricted", "restricted + diversified", "restricted, Adam"), ASCENT)
WHY |= {
    "finetune": (
        "Nothing in it asks the concept to go, and training on other pictures does not make it"
        " fade."
    ),
    "ESD-x": (
        "Half of the layers stay as they are, and at the shared budget the other half does not get"
        " as far."
    ),
    "ESD-u": "As ESD-x: the layers that read the prompt are the ones that stay.",
    "SalUn": (
        "It learns on pictures of the concept alone: a style is still visible in the noised picture"
        " it starts from, so it never learns what to do where the forgotten prompt leads instead;"
        " half of the units may not move."
    ),
    "SDD": "It imitates its own prediction for the empty prompt, which moves as it learns.",
    "EraseDiff": (
        "Its target is noise, not another picture; that spoils what the concept shares with its"
        " neighbours."
    ),
    "RECE": (
        "Each search erases a further direction near the concept, and neighbours are read through"
        " them as well."
    ),
}
