create table greetings (
  language text primary key,
  text text not null
);

insert into greetings (language, text) values
  ('en', 'Hello'),
  ('de', 'Guten Tag'),
  ('es', 'Buenos días'),
  ('ja', 'こんにちは');
