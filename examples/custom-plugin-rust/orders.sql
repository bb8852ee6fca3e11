CREATE DATABASE orders;
CREATE ROLE orders_app LOGIN PASSWORD 'only-weir-knows-it';
\connect orders
CREATE TABLE payments (order_id int PRIMARY KEY, card text, note text);
INSERT INTO payments VALUES (1, '4111111111111111', 'first'), (2, '5500005555555559', 'second'), (3, NULL, 'cash');
GRANT SELECT, UPDATE, DELETE ON payments TO orders_app;
