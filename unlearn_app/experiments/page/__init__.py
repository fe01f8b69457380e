"""How quickly the page answers, how heavy it is, and whether the time left that it says is true."""
