-- Errors with all of their fields, notices, and where they point to.
\set VERBOSITY verbose
\set SHOW_CONTEXT always
select * from nothing;
select no_column from (select 1 as a) x;
selec 1;
select 'unfinished;
';
select 1/0;
select 'x'::int, 'y'::date;
create table e (id int primary key, parent int references e, n int not null check (n > 0), unique (parent, n));
insert into e values (1, null, 1);
insert into e values (1, null, 2);
insert into e values (2, 99, 1);
insert into e values (3, null, null);
insert into e values (4, null, -1);
insert into e values (5, null, 'many');
delete from e where id = 1;
drop table e, nothing;
create table e ();
select nofunction(1);
select lower(1, 2);
select 2147483647 + 1;
select substring('x' from 1 for -1);
do $$ begin raise notice 'a notice of %', 1 using hint = 'none'; raise warning 'a warning'; raise exception 'an error' using errcode = 'ZZ001', detail = 'its detail', hint = 'its hint', column = 'c', constraint = 'k', table = 't', schema = 's', datatype = 'd'; end $$;
do $$ declare v int; begin select 1/0 into v; exception when division_by_zero then raise info 'caught % %', sqlstate, sqlerrm; end $$;
set client_min_messages = error;
do $$ begin raise warning 'nobody hears this'; end $$;
reset client_min_messages;
set client_min_messages = debug1;
create temp table d (i int primary key);
reset client_min_messages;
\errverbose
select repeat('x', 300) from nothing where a_long_condition = 'that moves the place of the error' and more is not null;
set nothing.at_all = 1;
set no_such_setting = 1;
select pg_sleep(-1);
set statement_timeout = 20;
select pg_sleep(5);
reset statement_timeout;
select '😀' || nocolumn;
