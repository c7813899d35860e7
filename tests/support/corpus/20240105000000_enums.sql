create type public.order_status as enum ('draft', 'open', 'paid');
create type public.address as (street text, city text);
create domain public.email as text check (value ~ '^[^@]+@[^@]+$');
