alter type public.order_status add value if not exists 'shipped' after 'paid';
ALTER TYPE public.order_status ADD VALUE 'lost; and found';
