DROP TABLE user_roles;
DROP TABLE users;
DROP TABLE roles;
DROP TABLE teams;
DROP TABLE accounts;
DROP TABLE default_roles;
DROP TABLE catalogue_head;
DROP TABLE permissions;
