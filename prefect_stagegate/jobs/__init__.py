"""One function a job: what the tasks, the flows and the command line call.

Nothing is imported here, so that a short command loads only the job that it does.
"""
