-- A profile for each new user; the body holds semicolons, quotes and the word COMMIT;
create function public.handle_new_user()
returns trigger
set search_path = ''
language plpgsql
security definer
as $function$
begin
  -- begin; commit; it's only a comment
  insert into public.profiles (id, username, full_name)
  values (new.id, coalesce(new.raw_user_meta_data ->> 'username', 'user_' || left(new.id::text, 8)),
          $inner$it's "quoted"; $$ even $$$inner$);
  return new;
end;
$function$;
create trigger on_auth_user_created
  after insert on auth.users
  for each row execute procedure public.handle_new_user();
