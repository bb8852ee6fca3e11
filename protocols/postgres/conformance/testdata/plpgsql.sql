-- Functions and procedures: results of every shape, dynamic statements, transactions inside.
create table log (n serial, what text);
create function twice(i int) returns int language sql immutable as 'select i * 2';
create function many(n int) returns setof int language plpgsql as $$ begin for i in 1..n loop return next i * i; end loop; end $$;
create function shaped(out a int, out b text) returns setof record language plpgsql as $$ begin a := 1; b := 'x'; return next; a := null; b := null; return next; end $$;
create function noted() returns trigger language plpgsql as $$ begin insert into log (what) values (tg_op || ' ' || coalesce(new.id::text, old.id::text)); raise notice '%', tg_op; return coalesce(new, old); end $$;
create function dynamic(t regclass) returns bigint language plpgsql as $$ declare n bigint; begin execute format('select count(*) from %s', t) into n; return n; end $$;
create procedure batches(n int) language plpgsql as $$ begin for i in 1..n loop insert into log (what) values ('batch ' || i); if i % 2 = 0 then commit; else rollback; end if; end loop; end $$;
create procedure inout(inout x int, y int default 5) language plpgsql as $$ begin x := x + y; end $$;
select twice(21), twice(null);
select * from many(4);
select many(2), many(3);
select * from shaped();
select (shaped()).*;
create table t (id int);
create trigger noted before insert or update or delete on t for each row execute function noted();
insert into t values (1), (2);
update t set id = 3 where id = 2;
delete from t;
select what from log order by n;
select dynamic('log'), dynamic('nothing');
call batches(4);
select what from log order by n;
begin;
call batches(2);
rollback;
call inout(1);
call inout(1, y => 10);
call nothing();
do $$ declare r record; begin for r in select * from many(3) m loop raise notice 'row %', r.m; end loop; end $$;
create function deep(n int) returns int language plpgsql as $$ begin if n = 0 then raise exception 'the bottom'; end if; return deep(n - 1); end $$;
select deep(3);
\sf twice
\df shaped
create function secret() returns text language plpgsql security definer set search_path = pg_catalog as $$ begin return current_setting('search_path'); end $$;
select secret();
create rule quiet as on insert to log where new.what = 'nothing' do instead nothing;
insert into log (what) values ('nothing'), ('something') returning what;
