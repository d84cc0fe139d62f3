"""The fabric: links, LAN bridges, the door's server and the agents behind it. It runs inside the lab, in its own
network namespace: as the supervisor of a namespaces lab, or in the fabric container of a docker lab."""
