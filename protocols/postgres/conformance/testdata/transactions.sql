-- Transactions, savepoints, isolation, and what an error does to them.
create table t (n int primary key);
begin;
insert into t values (1);
savepoint one;
insert into t values (2);
savepoint two;
insert into t values (1);
select 'not run';
rollback to two;
release one;
insert into t values (3);
commit;
table t;
begin isolation level serializable read only;
show transaction_isolation;
insert into t values (4);
select 1;
commit;
begin;
insert into t values (5);
select 1/0;
commit;
table t;
commit;
rollback to nowhere;
savepoint outside;
begin;
begin;
rollback and chain;
insert into t values (6);
commit and chain;
rollback;
table t;
\set AUTOCOMMIT off
insert into t values (7);
select count(*) from t;
rollback;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK on
begin;
insert into t values (8);
insert into t values (8);
insert into t values (9);
commit;
\set ON_ERROR_ROLLBACK off
insert into t values (10)\; insert into t values (10)\; insert into t values (11);
insert into t values (12)\; commit\; insert into t values (12);
table t;
begin; set local work_mem = '1MB'; show work_mem; rollback;
begin;
declare held cursor with hold for select n from t order by n;
commit;
fetch 2 from held;
close held;
prepare transaction 'x';
select txid_current_if_assigned() is null;
