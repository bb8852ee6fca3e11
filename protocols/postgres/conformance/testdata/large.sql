-- Results that do not fit into one read: long, wide, and with long values.
select g, md5(g::text), repeat('x', g % 50) from generate_series(1, 3000) g;
select sum(length(v)), count(*) from (select repeat(md5(g::text), 1000) as v from generate_series(1, 100) g) x;
select length(v), v from (select repeat('long line ', 20000) as v) x;
\pset format unaligned
select array_agg(g) from generate_series(1, 10000) g;
select string_agg(chr(1040 + g % 32), '') from generate_series(1, 20000) g;
\pset tuples_only on
select g from generate_series(1, 20000) g;
\pset tuples_only off
\pset format aligned
create table wide as select 1 as c0;
select string_agg('add c' || g || ' int default ' || g, ', ') as columns from generate_series(1, 300) g \gset
alter table wide :columns;
table wide;
select null, '', ' ', null from generate_series(1, 3);
select from generate_series(1, 5);
\set FETCH_COUNT 100
select g from generate_series(1, 1050) g;
\set FETCH_COUNT 0
select octet_length(repeat('é', 500000)), length(repeat('é', 500000));
