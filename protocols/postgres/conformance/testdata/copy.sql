-- COPY in every direction and format that goes over the connection.
create table c (id int primary key, name text, at date default '2026-01-01');
copy c (id, name) from stdin;
1	one
2	\N
3	tab\there and \\ backslash
\.
copy c from stdin with (format csv, header, null 'none');
id,name,at
4,"quoted ""name"", with comma",2026-02-03
5,none,none
6,"two
lines",2026-12-31
\.
table c;
copy c to stdout;
copy c to stdout with (format csv, header, force_quote *);
copy c (name, id) to stdout with (delimiter '|', null 'NULL');
copy (select id * 2 as twice, upper(name) from c where id > 2 order by id) to stdout with csv header;
copy c from stdin;
7	seven
7	seven again
\.
copy c from stdin;
8	eight	not a date
\.
copy c (id) from stdin;
9	too much
\.
select count(*) from c;
begin;
copy c (id) from stdin;
10
11
\.
savepoint s;
copy c (id) from stdin;
10
\.
rollback to s;
select count(*) from c;
rollback;
select count(*) from c;
copy nowhere to stdout;
copy c to '/nowhere/at/all';
copy c from stdin where id % 2 = 0;
20	x	2026-01-01
21	y	2026-01-01
\.
copy (update c set name = 'changed' where id = 20 returning *) to stdout;
copy c from stdin;
\.
