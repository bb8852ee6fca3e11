-- A small database to try Weir with. Run it as a superuser of your PostgreSQL:
--
--   psql -h 127.0.0.1 -U postgres -f orders.sql
--
-- The role below is the only one that Weir signs in as. Agents and people never see its password.
CREATE ROLE orders_app LOGIN PASSWORD 'only-weir-knows-it';
CREATE DATABASE orders OWNER orders_app;
\connect orders

CREATE TABLE customers (
    id    int PRIMARY KEY,
    name  text NOT NULL,
    email text NOT NULL,
    note  text
);
CREATE TABLE orders (
    id          int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customers,
    item        text NOT NULL,
    total       numeric(10, 2) NOT NULL
);
CREATE TABLE payments (
    order_id int PRIMARY KEY REFERENCES orders,
    card     text NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON customers, orders, payments TO orders_app;

INSERT INTO customers VALUES
    (1, 'Ana Costa', 'ana.costa@example.com', 'write to ana@example.org as well'),
    (2, 'Bruno Reis', 'bruno.reis@example.net', 'invited to project bluebird'),
    (3, 'Carla Pinto', 'carla@example.org', NULL);
INSERT INTO orders VALUES (1, 1, 'red kettle', 49.90), (2, 2, 'oak table', 380.00), (3, 3, 'wool rug', 120.50);
INSERT INTO payments VALUES (1, '4111111111111111'), (2, '5500005555555559'), (3, '340000000000009');
