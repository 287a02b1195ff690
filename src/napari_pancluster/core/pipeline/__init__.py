"""One module a step, one function a verb: what the command line, the window and a notebook call.

Every slow verb is a `Task`; its result is the JSON object of the command of the same name. Nothing
is imported here: the steps of a network bring torch, the others do not.
"""
