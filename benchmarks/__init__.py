"""Side-by-side measurements of mltune and of what people use without it: ``make bench``."""
