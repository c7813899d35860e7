drop function visit(text);
