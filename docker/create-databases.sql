-- Run once, by PostgreSQL's image, when the volume is new: the runs are in `mlflow`, which the image makes itself, the
-- users in a database of their own.
CREATE DATABASE mlflow_auth OWNER mlflow;
