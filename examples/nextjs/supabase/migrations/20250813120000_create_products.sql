create table public.products (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  created_at timestamptz not null default now()
);

alter table public.products enable row level security;

create policy "Everybody sees products" on public.products for select using (true);

-- Supabase grants nothing on new tables by itself any more.
grant select on public.products to anon, authenticated;
