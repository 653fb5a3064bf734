"""The multi-task model: backbone, heads, losses, balancer, and the one trainer."""
