"""Makes the bucket of a URL where there is none; the environment says where the store is."""

import os
import sys
from urllib.parse import urlsplit

from minio import Minio

endpoint, bucket = urlsplit(os.environ["MOCO_S3_ENDPOINT"]), urlsplit(sys.argv[1]).netloc
store = Minio(
    endpoint.netloc,
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
    secure=endpoint.scheme == "https",
    region=os.environ.get("AWS_REGION"),
)
if not store.bucket_exists(bucket):
    store.make_bucket(bucket)
