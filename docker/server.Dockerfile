# The team's MLflow server: MLflow of the pinned version with its authentication, and the driver for PostgreSQL.
#
#   docker build -f docker/server.Dockerfile -t qlib-ext-mlflow .
FROM python:3.11-slim

ENV MLFLOW_DISABLE_TELEMETRY=true \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /mlflow

COPY constraints.txt /tmp/constraints.txt
RUN pip install --constraint /tmp/constraints.txt mlflow "Flask-WTF<2" psycopg2-binary

COPY docker/basic_auth.ini /etc/mlflow/basic_auth.ini

# Artifacts are kept below /mlflow, on a volume.
RUN useradd --create-home keeper && mkdir -p artifacts && chown -R keeper:keeper .
USER keeper

CMD ["mlflow", "server", "--help"]
