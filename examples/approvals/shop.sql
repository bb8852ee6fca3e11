-- Run it as a superuser of your PostgreSQL: psql -h 127.0.0.1 -U postgres -f shop.sql
CREATE ROLE shop_app LOGIN PASSWORD 'only-weir-knows-it';
CREATE DATABASE shop OWNER shop_app;
\connect shop

CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL);
INSERT INTO orders SELECT g, 'item ' || g FROM generate_series(1, 100) g;
ALTER TABLE orders OWNER TO shop_app;
