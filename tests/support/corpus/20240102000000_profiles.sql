create table public.profiles (
  id uuid references auth.users on delete cascade primary key,
  username text unique check (char_length(username) >= 3),
  full_name text,
  updated_at timestamp with time zone default now()
);

alter table public.profiles enable row level security;

create policy "Profiles can be seen by everyone." on profiles for select using (true);
create policy "Users can insert their own profile." on profiles for insert with check ((select auth.uid()) = id);
create policy "It's one's own, so one may change it" on profiles for update using ((select auth.uid()) = id);
