"""The lab: do attacks find what is concealed, is the verdict true, what do methods withstand?"""
