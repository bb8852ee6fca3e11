-- The demo's database: customers, orders and payments, with what should never reach an agent as it is.
CREATE TABLE customers (
    id      int PRIMARY KEY,
    name    text NOT NULL,
    email   text NOT NULL UNIQUE,
    phone   text NOT NULL,
    country text NOT NULL,
    api_key text
);
CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customers,
    item        text NOT NULL,
    total       numeric(10, 2) NOT NULL,
    created     timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE payments (
    id       int PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders,
    amount   numeric(10, 2) NOT NULL,
    card     text NOT NULL,
    note     text
);

INSERT INTO customers
SELECT g,
       (ARRAY['Ana','Bruno','Carla','Diogo','Elisa','Filipe','Greta','Hugo'])[1 + g % 8] || ' ' ||
       (ARRAY['Almeida','Bauer','Costa','Dupont','Esposito','Ferreira'])[1 + g % 6],
       'customer' || g || '@' || (ARRAY['example.com','example.org','example.net'])[1 + g % 3],
       '+351 21 ' || lpad((g * 7919 % 10000000)::text, 7, '0'),
       (ARRAY['PT','DE','FR','IT'])[1 + g % 4],
       CASE WHEN g % 50 = 0 THEN 'AKIA' || upper(substr(md5(g::text), 1, 16)) END
FROM generate_series(1, 2000) g;

INSERT INTO orders (customer_id, item, total, created)
SELECT 1 + g % 2000,
       (ARRAY['red kettle','green lamp','oak table','wool rug','desk fan'])[1 + g % 5],
       (5 + g * 37 % 40000) / 100.0,
       timestamptz '2026-01-01' + g * interval '53 minutes'
FROM generate_series(1, 5000) g;

INSERT INTO payments
SELECT g, g, (5 + g * 37 % 40000) / 100.0,
       (ARRAY['4111111111111111','5500005555555559','340000000000009','4012888888881881'])[1 + g % 4],
       CASE WHEN g % 3 = 0 THEN 'receipt sent to customer' || g || '@example.com' END
FROM generate_series(1, 5000) g;
