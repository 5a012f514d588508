# The server and all commands, on a CPU:
#   docker build -t nuwa-lip .
#   docker run --rm -p 8080:8080 -e NUWA_LIP_TOKEN="$SECRET" nuwa-lip
#   docker run --rm -v "$PWD:/photos" nuwa-lip inpaint photo.jpg --mask mask.png --prompt "grass" -o result.png
# tests/docker_steps.py runs these steps without Docker.
FROM python:3.12-slim

# PyTorch without CUDA is a tenth as large; an empty TORCH_INDEX takes the usual one
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

WORKDIR /opt/nuwa-lip
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-cache-dir '.[serve]'
# it works without a network, and knows its bundled model
RUN nuwa-lip models && python -c "import nuwa_lip.serving.app"

RUN useradd --create-home --uid 1000 painter
USER painter
WORKDIR /photos
EXPOSE 8080
HEALTHCHECK --start-period=60s \
    CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=5)"
ENTRYPOINT ["nuwa-lip"]
CMD ["serve", "--host", "0.0.0.0", "--allow-host", "localhost", "--no-browser"]
