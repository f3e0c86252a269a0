# Two images from one file.
#   docker build --target gateway -t tuneloop .            the gateway with the CUDA engine
#   docker build --target trainer -t tuneloop-trainer .    the trainer; needs only a gateway's URL and a key
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS python
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/tuneloop \
 && useradd --create-home --uid 10001 tuneloop
ENV PATH=/opt/tuneloop/bin:$PATH
WORKDIR /src
COPY pyproject.toml README.md ./
COPY adapters adapters
COPY gateway gateway
COPY trainer trainer

FROM python AS gateway
RUN pip install '.[cuda]'
USER tuneloop
WORKDIR /home/tuneloop
ENV GATEWAY_HOME=/home/tuneloop/data GATEWAY_HOST=0.0.0.0
VOLUME /home/tuneloop/data
EXPOSE 8080
HEALTHCHECK --start-period=10m --interval=10s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/readyz', timeout=3)"]
ENTRYPOINT ["gateway"]
CMD ["serve"]

FROM python AS trainer
RUN pip install '.[trainer]'
USER tuneloop
WORKDIR /home/tuneloop
ENTRYPOINT ["trainer"]
