"""How several models' scores of a day become one."""
