"""The processes of a server: a supervisor, and the front ends that it keeps alive."""
