"""The peers, each as one would write it: the same members, the same answer, on `PORT` of 127.0.0.1."""
