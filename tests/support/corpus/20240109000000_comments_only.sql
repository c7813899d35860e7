-- Reverted: see 20240110000000.
/* create table never (id int);
   /* nested */ drop table orders; */
