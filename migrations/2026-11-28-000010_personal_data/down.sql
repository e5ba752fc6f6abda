-- Events that have commitments stay readable only to releases that know their format.
DROP INDEX api_keys_with_text;
DROP TABLE event_details;
