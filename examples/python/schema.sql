CREATE TABLE orders (
    key uuid PRIMARY KEY,
    service text NOT NULL,
    n bigint NOT NULL
);
