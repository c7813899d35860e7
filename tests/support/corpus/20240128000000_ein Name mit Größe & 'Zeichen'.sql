create table "größe" ("ß" text primary key check ("ß" <> ';'));
insert into "größe" values ('🐘'), (U&'\00e4'), (E'\u00f6'), (e'a\'b'), ('a\'), ($$'$$), ('--'), ('/*');
