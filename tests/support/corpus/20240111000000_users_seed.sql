insert into auth.users (id, email, raw_user_meta_data) values
  ('00000000-0000-0000-0000-000000000001', 'ann@example.com', '{"username": "ann; or so"}'),
  ('00000000-0000-0000-0000-000000000002', 'böb@example.com', '{"username": "böb''s"}'),
  ('00000000-0000-0000-0000-000000000003', null, '{}');
insert into orders (user_id, status, net, tags, details)
select id, 'open', 10.005, array['a;b', 'it''s', E'tab\there\\'], jsonb_build_object('n', 1, 'text', E'line\nbreak')
  from auth.users;
update orders set status = 'shipped' where user_id = '00000000-0000-0000-0000-000000000002';
delete from orders where user_id = '00000000-0000-0000-0000-000000000003';
