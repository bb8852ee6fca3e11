-- Prepared statements of SQL, with parameters of many types, and generic plans.
create table p (id int, name text, at timestamptz);
prepare put (int, text) as insert into p values ($1, $2, '2026-01-02 03:04:05+00') returning *;
execute put (1, 'one');
execute put (2, null);
execute put ('3', 'drei' || '!');
execute put ('x', 'y');
execute put (1);
prepare put as select 1;
prepare get as select name from p where id = $1 and ($2::text is null or name like $2) order by name;
execute get (1, null);
execute get (1, 'o%');
execute get (1, null);
execute get (1, null);
execute get (1, null);
execute get (1, null);
execute get (1, null);
select name, statement, parameter_types, from_sql from pg_prepared_statements order by name;
explain (costs off) execute get (1, 'x');
create table made as execute get (2, null);
table made;
alter table p alter name type varchar(10);
execute get (1, null);
alter table p add extra int;
prepare whole as select * from p where id = 1;
execute whole;
alter table p drop extra;
execute whole;
deallocate whole;
execute whole;
begin;
prepare gone as select 1;
rollback;
execute gone;
deallocate all;
execute get (1, null);
\gdesc
select id, name, at from p \gdesc
select id from p \gset
select 'select ' || g from generate_series(1, 3) g \gexec
select $1::int;
